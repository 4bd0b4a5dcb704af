"""People's files: readers declared by name, the store that they become, and what an algorithm learns from in it.

- a row: ``rows``, its ``keys``, its ``turns``, its ``media``, and the ``readers`` of every format
- a file: ``source_file`` with its ``shards``, ``table_rows``, ``columns``, ``row_pictures`` and ``videos``, whose
  format ``recognising`` tells; ``reading``, to the ``prompts`` of an online run or to the ``records`` of a store
- a store: ``writer``, ``store``, ``store_files``, ``order``, ``side_tables`` and ``exporting``; ``stores`` of a run
- what is learned: ``pairs``, ``choice``, ``pair_betas``, ``examples``, ``learnable``, ``image_check`` and ``stream``
- what is told: ``counted`` and ``showing``
"""
