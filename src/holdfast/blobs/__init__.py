"""Blob stores: adapters of `ports.BlobStore`, payloads under their SHA-256 outside the database.

They never know what a blob is for and never remove one that was put.
"""
