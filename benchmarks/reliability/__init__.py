"""Whether anything is lost: runs that are killed, and runs whose files fail, end as others do."""

__all__: list[str] = []
