"""python -m kvpaged"""

from kvpaged.cli import main

main()
