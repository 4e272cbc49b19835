"""``python -m reliev3r.cli``, as torchrun and accelerate launch need it."""

import sys

from reliev3r.cli import main

sys.exit(main())
