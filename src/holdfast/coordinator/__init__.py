"""The coordinator: one inbox, one loop, one turn at a time; sessions at its gateway."""
