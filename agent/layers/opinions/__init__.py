"""Second opinions: what aggregators would pay for the trades of a plan, shown beside it
([second_opinions]). They decide nothing: no step, plan or guard reads them.
"""
