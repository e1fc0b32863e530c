"""The measuring instrument: a reference contrastive vision-language model for any WebDataset folder.

It knows nothing of curation. Import what you use: `trainer.train.train`, `trainer.evaluate.evaluate`,
`trainer.scales.SCALES`, `trainer.stats`. Importing this package alone loads neither torch nor open_clip.
"""

import os

# Threads that spin while they wait take the cores from whoever they wait for: on a machine that does other work a
# training then runs ten times slower. OpenMP reads this when torch is first imported. The results are the same.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
