from rating_databases import postgresql_server, store, url  # noqa: F401  fixtures
