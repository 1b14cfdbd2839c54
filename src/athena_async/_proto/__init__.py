"""Generated protobuf code. Regenerate with ``make proto``; only ``athena_async.wire`` and the emulator import it."""
