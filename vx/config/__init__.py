"""The server's configuration: a TOML file, read once, validated once, frozen from then on.

`reading.load` is the way in. Units are in the names of keys: `_s` seconds, `_kb` 1024 bytes, `_mb` 1024 * 1024 bytes.

    schema      the tables and keys, with their defaults
    rules       what a key may be
    addresses   where servers listen, and the names of cameras, archives and agents
    reading     the file, key by key
    conflicts   what is wrong between keys
    mistakes    how all that is told
"""
