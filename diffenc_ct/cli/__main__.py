"""python -m diffenc_ct.cli"""

import sys

from diffenc_ct.cli import main

sys.exit(main())
