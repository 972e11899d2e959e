"""``causalgen app``: a page in the browser that asks a model.

questions   the question that a page asks, and the answer: no browser, no gradio
controls    what each node is typed with, and what a control says
views       an answer as HTML
downloads   an answer as files, and as the Python that gives it again
layout      the page, in gradio
server      who may open it, and from where
"""

__all__: list[str] = []
