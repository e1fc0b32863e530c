"""The measuring instrument: a reference contrastive vision-language model for any WebDataset folder.

It knows nothing of curation. Import what you use: `trainer.train.train`, `trainer.evaluate.evaluate`,
`trainer.scales.SCALES`, `trainer.stats`. Importing this package alone loads neither torch nor open_clip.
"""
