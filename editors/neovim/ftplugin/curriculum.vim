setlocal commentstring=#\ %s comments=:##,:# shiftwidth=2 tabstop=2 expandtab
