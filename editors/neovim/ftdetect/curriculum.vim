autocmd BufRead,BufNewFile *.curriculum setfiletype curriculum
