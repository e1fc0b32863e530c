"""From web pages to a pool: find image-text pairs (crawl), fetch their images (download)."""
