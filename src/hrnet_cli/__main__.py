"""Run the command line as ``python -m hrnet_cli``."""

from hrnet_cli.cli import main

if __name__ == "__main__":
    main()
