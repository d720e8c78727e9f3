"""MP4 as bytes: what a recording's tables say of its samples, and the header of a file over samples of many recordings.

Pure: bytes in, tables and bytes out. Nothing is believed that isn't checked; whatever is out of the ordinary is an
`Mp4Error`, and libav may make of it what it can.

    boxes         the boxes that everything is made of
    tables        one track's samples: sizes, times, key frames, where they lie
    description   a track's sample description, and what of it makes two recordings alike
    movie         the `moov` box
    fragments     the `moof` boxes of fragmented files
    recording     a whole file, from the places of its boxes to its tracks
    stored        a recording's tables, to be kept and read again
    build         the header of a new file: ftyp, moov, the mdat's own
    growing       a file that can be read while it is written, and is flat in the end

Field names and layouts are those of ISO/IEC 14496-12 (the format), -14 (esds) and -15 (avcC, hvcC).
"""
