;; A session of Emacs with eglot and the mode of editors/emacs, checked step by step.
;; Run by emacs.sh in a directory with demo.curriculum.  -*- lexical-binding: t -*-
(dolist (directory (ignore-errors (directory-files "/usr/share/emacs/site-lisp/elpa" t "^[^.]")))
  (add-to-list 'load-path directory))
(require 'eglot)
(require 'flymake)
(require 'curriculum-mode)
(setq curriculum-midc-command (list (getenv "MIDC") "lsp")
      eglot-sync-connect 10 eglot-autoshutdown t eglot-events-buffer-size 0
      eglot-confirm-server-initiated-edits nil)

(defun check (condition what)
  "Fail the run unless CONDITION; tell WHAT was checked."
  (if condition (message "ok: %s" what)
    (message "FAIL: %s" what)
    (kill-emacs 1)))

(defun wait-for (condition)
  "Let messages in until CONDITION holds, for ten seconds at most."
  (let ((rounds 0))
    (while (and (< rounds 100) (not (funcall condition)))
      (accept-process-output nil 0.1)
      (when (= 0 (% rounds 5)) (flymake-start))
      (setq rounds (1+ rounds)))
    (funcall condition)))

(find-file "demo.curriculum")
(check (eq major-mode 'curriculum-mode) "the mode is known")
(apply #'eglot (eglot--guess-contact))
(check (eglot-current-server) "eglot is connected")
(check (wait-for (lambda () (flymake-diagnostics))) "diagnostics arrive")
(let ((about (seq-find (lambda (d) (string-match-p "decimal" (flymake-diagnostic-text d)))
                       (flymake-diagnostics))))
  (check (and about (= 27 (line-number-at-pos (flymake-diagnostic-beg about))))
         "the decimal context is on line 27"))

(goto-char (point-min))
(search-forward "tokens    = total")
(beginning-of-line)
(forward-char 3)
(let ((hover (jsonrpc-request (eglot-current-server) :textDocument/hover
                              (eglot--TextDocumentPositionParams))))
  (check (string-match-p "50B tokens = " (plist-get (plist-get hover :contents) :value))
         "hover tells the derived numbers"))

(goto-char (point-min))
(let ((case-fold-search nil)) (search-forward "4k"))
(let* ((place (eglot--pos-to-lsp-position (- (point) 1)))
       (actions (jsonrpc-request (eglot-current-server) :textDocument/codeAction
                                 (list :textDocument (eglot--TextDocumentIdentifier)
                                       :range (list :start place :end place)
                                       :context (list :diagnostics []))))
       (fix (seq-find (lambda (a) (string-match-p "4Ki" (plist-get a :title))) actions)))
  (check fix "a quick fix is offered")
  (eglot--apply-workspace-edit (plist-get fix :edit))
  (check (save-excursion (goto-char (point-min)) (search-forward "context   = 4Ki" nil t))
         "the quick fix is applied"))
;; Idle timers, which send changes, do not run in batch.
(eglot--signal-textDocument/didChange)
(check (wait-for (lambda () (null (flymake-diagnostics)))) "the diagnostics are cleared")

(goto-char (point-min))
(search-forward "s.math")
(insert "   ")
(eglot--signal-textDocument/didChange)
(eglot-format-buffer)
(check (save-excursion (goto-char (point-min)) (search-forward "  s.math = rest" nil t)) "the buffer is formatted")
(set-buffer-modified-p nil)
(eglot-shutdown (eglot-current-server))
(kill-emacs 0)
