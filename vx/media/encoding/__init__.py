"""What can't stay as it was recorded: the stages between a reader and a file that encode.

They keep to the contract that stands in `clips.clip`.

    recipe      whether a track is copied or encoded, why, and how: tables and decisions (pure)
    transcode   the stage that encodes a source's tracks, or picks the frames of a time lapse
    pictures    its pictures: decode, pick, draw into, encode
    sound       its sound: another rate, tempo or codec
    clock       the clip's clock: the wall clock, or that of a time lapse
    cutting     the stage that cuts a copied clip exactly, by encoding as little as can be
"""
