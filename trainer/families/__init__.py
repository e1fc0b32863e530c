"""Model families, one file each; the class is the file's name in CamelCase."""
