"""Records of trials on disk, remote storage, checks of folders, and temporary folders."""
