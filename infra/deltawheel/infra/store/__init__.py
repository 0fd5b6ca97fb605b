"""The store on a SQL database: SQLite in a file, or PostgreSQL by its URL.

Nothing is imported here, so that naming the package costs nothing; `store.SqlStore` is the adapter.
"""
