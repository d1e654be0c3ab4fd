"""Stores: adapters of `ports.Store` and `ports.StoreReader`.

They write and refuse by predicate; they never decide and never import `core`. `wiring` imports
the concrete ones from `holdfast.stores.sqlite` and `holdfast.stores.reader`.
"""
