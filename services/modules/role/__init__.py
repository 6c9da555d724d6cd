"""Module role: who may do what. All roles of a scope (a context, or a home for roles without a context) are one aggregate."""
