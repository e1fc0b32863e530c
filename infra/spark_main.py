"""The command as a file, since `spark-submit` starts Python programs by a path that ends in .py."""

from curate.cli import main

if __name__ == "__main__":
    main()
