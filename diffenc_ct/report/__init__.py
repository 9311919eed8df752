"""Figures and pictures: of evaluations, verifications, samples, encodings.

figures needs matplotlib, pictures needs pillow (the extra `figures`): import them where something is drawn. values
needs neither. extras: packages that not everybody has.
"""
