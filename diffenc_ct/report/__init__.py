"""Figures and pictures: of evaluations, verifications, samples, encodings.

figures needs matplotlib, pictures needs pillow (the extra `figures`): import them where something is drawn. values
needs neither. extras: packages that not everybody has.

The page of a run (`diffenc report`): findings gathers its numbers, rows compares them, metrics reads its training,
album shows its pictures, charts draws, and page (jinja2, the extra `report`) puts it together.
"""
