" Training curricula (midc). The words are tested against the compiler's table.
if exists('b:current_syntax')
  finish
endif
syntax match curriculumKey /\<[A-Za-z_][A-Za-z0-9_.]*\ze\s*=\(=\)\@!/
syntax match curriculumComment /#.*$/
syntax match curriculumDoc /##.*$/
syntax region curriculumString start=/"/ skip=/\\./ end=/"\|$/ oneline
syntax match curriculumNumber /\<\d[0-9_]*\(\.\d[0-9_]*\)\?\([eE][-+]\?\d\+\)\?\(Ki\|Mi\|Gi\|Ti\|[kMBT]\)\?\>/
syntax match curriculumAttribute /@\w\+/
syntax keyword curriculumKeyword use param let assert soup model source mix stage checkpoint eval gate budget lints
syntax keyword curriculumOperator then of and or not where in as
syntax keyword curriculumWord inherit peak rest yes no
syntax keyword curriculumUnit tokens seqs steps epochs gpu_hours flops
syntax keyword curriculumFunction hold linear cosine one_minus_sqrt exp exp_floor poly inv_sqrt power step truncate rope abf pi ntk dynamic_ntk ntk_by_parts yarn llama3 longrope llama qwen2 qwen3 olmo2 olmo3 smollm3 gemma3 adamw muon upsample reweight proportional temperature average ema fim ascending descending needle loss choice

highlight default link curriculumDoc SpecialComment
highlight default link curriculumComment Comment
highlight default link curriculumString String
highlight default link curriculumNumber Number
highlight default link curriculumAttribute PreProc
highlight default link curriculumKey Identifier
highlight default link curriculumKeyword Keyword
highlight default link curriculumOperator Operator
highlight default link curriculumWord Constant
highlight default link curriculumUnit Type
highlight default link curriculumFunction Function

let b:current_syntax = 'curriculum'
