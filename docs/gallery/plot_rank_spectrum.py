"""
How much rank does a layer use?
===============================
"""
print(1)
