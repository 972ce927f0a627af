-- midc in Neovim 0.7 and newer: starts `midc lsp` for .curriculum files.
--
--   require('midc').setup()                                  -- `midc` from $PATH
--   require('midc').setup({ cmd = { '/path/to/midc', 'lsp' } })
local M = {}

local function start(config, buffer)
  local name = vim.api.nvim_buf_get_name(buffer)
  local root = vim.fn.fnamemodify(name, ':p:h')
  for directory in vim.fs and vim.fs.parents(name) or function() end do
    if vim.fn.isdirectory(directory .. '/.git') == 1 then
      root = directory
      break
    end
  end
  local options = {
    name = 'midc',
    cmd = config.cmd,
    root_dir = root,
    init_options = { inlayHints = config.inlay_hints },
    on_attach = config.on_attach,
    capabilities = config.capabilities,
  }
  if vim.lsp.start then
    vim.lsp.start(options, { bufnr = buffer })
    return
  end
  -- Before 0.8: one client for each root.
  M.clients = M.clients or {}
  local id = M.clients[root]
  if not id or not vim.lsp.get_client_by_id(id) then
    id = vim.lsp.start_client(options)
    M.clients[root] = id
  end
  if id then vim.lsp.buf_attach_client(buffer, id) end
end

function M.setup(config)
  config = config or {}
  config.cmd = config.cmd or { 'midc', 'lsp' }
  if config.inlay_hints == nil then config.inlay_hints = true end
  if vim.filetype then vim.filetype.add({ extension = { curriculum = 'curriculum' } }) end
  vim.api.nvim_create_autocmd('FileType', {
    pattern = 'curriculum',
    callback = function(event)
      if vim.fn.executable(config.cmd[1]) == 0 then
        vim.notify_once(
          'midc: cannot run `' .. config.cmd[1] .. '`; install it with `cargo install midc` or set `cmd`',
          vim.log.levels.ERROR
        )
        return
      end
      start(config, event.buf)
      if config.inlay_hints and vim.lsp.inlay_hint and vim.lsp.inlay_hint.enable then
        vim.lsp.inlay_hint.enable(true, { bufnr = event.buf })
      end
    end,
  })
end

return M
