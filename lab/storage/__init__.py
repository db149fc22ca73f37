"""Records of trials, remote storage, checks of folders, temporary folders and atomic writes."""
