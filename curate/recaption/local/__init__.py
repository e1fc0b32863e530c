"""What backends share whose model runs on this machine: images made ready by threads, and how tokens are chosen."""
