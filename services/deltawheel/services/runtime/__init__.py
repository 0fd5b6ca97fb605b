"""The loop that all services share: polling, bounded work, effects before events before offsets."""
