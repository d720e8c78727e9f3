"""Export sessions: from a request that is taken to the last byte of a result that is deleted.

The registry is the way in. The modules marked pure only decide.

    registry    the sessions of this server: how they begin, what is asked of them, how they end
    roster      which there are, in what order, and who may touch them (pure)
    session     one of them: its record, its folder, what its tasks tell each other
    lifecycle   what becomes of a session's state (pure)
    turns       whose turn it is (pure)
    budget      what results may take of the disk (pure)
    prospect    what would become of an export that nobody has started (pure)
    deadlines   when sessions end by themselves
    recovery    what a server finds of the one before it

    exporter    a session's export, from its turn to its files
    work        what its worker process is told, and tells
    folders     the sessions' folders on the disk
    delivery    results that an export agent stores for good

    ledger      what is remembered, before anybody is told of it
    store       where: SQLite, one writer, in a thread
    tables      as what: the tables, and records as their rows
    audit       who did what: read from there
    tally       what sessions come to, for the metrics (pure)

    leases      the recordings that virtual results are served from
    watch       what retention does to those
    absorbing   results that copy what they would lose by that
"""
