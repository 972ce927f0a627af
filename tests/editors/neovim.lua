-- A session of Neovim (0.7 or newer) with the plugin of editors/neovim, checked step by step.
-- Run by neovim.sh in a directory with demo.curriculum.
local function fail(what)
  io.stderr:write('FAIL: ' .. what .. '\n')
  vim.cmd('cquit 1')
end
local function check(condition, what)
  if not condition then fail(what) end
  io.stdout:write('ok: ' .. what .. '\n')
end

vim.cmd('filetype on')
require('midc').setup({ cmd = { vim.env.MIDC, 'lsp' } })
vim.cmd('edit demo.curriculum')
check(vim.bo.filetype == 'curriculum', 'the file type is known')

local function diagnostics() return vim.diagnostic.get(0) end
check(vim.wait(10000, function() return #diagnostics() > 0 end, 50), 'diagnostics arrive')
local line
for _, d in ipairs(diagnostics()) do
  io.stdout:write(string.format('  %d:%d %s\n', d.lnum + 1, d.col + 1, d.message:gsub('\n.*', '')))
  if d.message:find('decimal') then line = d.lnum end
end
check(line == 26, 'the decimal context is on line 27')

local client
for _, c in pairs(vim.lsp.get_active_clients and vim.lsp.get_active_clients() or vim.lsp.get_clients()) do
  if c.name == 'midc' then client = c end
end
check(client ~= nil, 'a client is attached')
local function ask(method, params)
  local answers = vim.lsp.buf_request_sync(0, method, params, 5000)
  local answer = answers and answers[client.id]
  if not answer or answer.error then fail(method .. ': ' .. vim.inspect(answer)) end
  return answer.result
end

local document = vim.lsp.util.make_text_document_params()
local hover = ask('textDocument/hover', { textDocument = document, position = { line = 25, character = 3 } })
check(hover.contents.value:find('50B tokens = ', 1, true), 'hover tells the derived numbers')

local actions = ask('textDocument/codeAction', {
  textDocument = document,
  range = { start = { line = line, character = 15 }, ['end'] = { line = line, character = 15 } },
  context = { diagnostics = vim.lsp.diagnostic.get_line_diagnostics(0, line) },
})
local fix
for _, a in ipairs(actions) do
  if a.title:find('4Ki', 1, true) then fix = a end
end
check(fix ~= nil, 'a quick fix is offered')
vim.lsp.util.apply_workspace_edit(fix.edit, client.offset_encoding)
check(vim.fn.getline(line + 1) == '  context   = 4Ki', 'the quick fix is applied')
check(vim.wait(10000, function() return #diagnostics() == 0 end, 50), 'the diagnostics are cleared')
vim.cmd('qall!')
