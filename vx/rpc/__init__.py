"""gRPC on trio: from bytes on a socket to the contract's methods, and back.

Connections. `server` accepts them; each is h2's state machine between a wire and its calls:

    server          the sockets: listen, accept, end in good order
    wire            bytes in and out of a socket
    tls             the same, encrypted
    connection      one HTTP/2 connection: grpclib's protocol layer, re-hosted on trio
    http2           h2's state, made fit for what a peer may do to it
    frames          frames as bytes
    streams         what has come on a stream, and sending on it
    outbox          what leaves, in its order
    budget          what a peer may cause that brings nothing
    places          how many connections there may be (pure)

Calls, of whichever service:

    calls           a call from its headers to its trailers
    guard           which calls need a token
    codec           messages as bytes
    status          kinds of error as status codes

The services. What they do is done elsewhere: by vx.session, vx.access, vx.archive, vx.download:

    services        exports: sessions, downloads
    reports         what would become of an export, and what became of one
    discovery       cameras, archives, what is recorded
    authentication  logins
    health          whether calls are taken
    reflection      the proto files, for clients that have none

What clients ask for, checked:

    options         a client's Options as a request
    coding          their settings for codecs, qualities, rates
    drawing         those for what is drawn into pictures
    live            those for live cameras
    refusing        how settings are read, and what is said of a field that is not taken
    permits         whether a caller may have what is asked for
    paging          pages of lists

`generated` is made from proto/ by tools/generate.
"""
