"""What curation keeps of earlier nights, so that a new pool is curated against all samples before it."""
