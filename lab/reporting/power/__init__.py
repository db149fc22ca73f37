"""Power of a design: differences that it finds, and seeds that would separate ties."""
