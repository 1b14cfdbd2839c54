"""``python -m athena_async.cli`` is ``athena-async``."""

from athena_async.cli import main

if __name__ == "__main__":
    main()
