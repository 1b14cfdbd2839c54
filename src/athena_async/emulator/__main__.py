"""``python -m athena_async.emulator '{"port": 0}'``: an emulator with the fields of a JSON object.

For programs that start one; people have ``athena-async emulator``.
"""

from __future__ import annotations

import sys

from athena_async.emulator.run import run
from athena_async.emulator.settings import config_from_json
from athena_async.errors import AthenaError


def main() -> int:
    try:
        run(config_from_json(sys.argv[1] if len(sys.argv) > 1 else "{}"))
    except (AthenaError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
