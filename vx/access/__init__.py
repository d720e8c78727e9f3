"""Who may come in: users and their passwords, tokens, and how often anybody may guess.

Of passwords and tokens, only hashes are kept.

    gate        what the server asks: who makes this call, and is this login right
    tokens      what a login is worth, and for how long
    passwords   has passwords checked by a helper process
    hashing     that process
    lockout     who is held off after failures (pure)
    networks    which network a client comes from (pure)
"""
