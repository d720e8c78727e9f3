"""What is drawn into frames.

Frames in, frames out: nothing here knows of recordings, clips or files.

    overlay     draws into a frame: crops it, hides what is masked, outlines areas, burns text in
    masks       which pixels polygons cover, and how what lies there is hidden
    geometry    from fractions of what a viewer sees to pixels as they are stored (pure)
    lettering   text as pixels
    layout      text in a box: broken into lines, shrunk until it fits (pure)
    fonts       the letters: Roboto
    colours     which numbers a colour is in a frame
"""
