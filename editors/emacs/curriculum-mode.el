;;; curriculum-mode.el --- Major mode for training curricula -*- lexical-binding: t -*-

;; Author: the midc authors
;; Version: 0.1.0
;; Package-Requires: ((emacs "26.3"))
;; Keywords: languages

;;; Commentary:

;; Comments, strings and keywords of .curriculum files, and `midc lsp' through Eglot:
;;
;;   (require 'curriculum-mode)
;;   (add-hook 'curriculum-mode-hook #'eglot-ensure)

;;; Code:

(defgroup curriculum nil "Training curricula." :group 'languages)

(defcustom curriculum-midc-command '("midc" "lsp")
  "The command that starts the language server."
  :type '(repeat string))

(defvar curriculum-mode-syntax-table
  (let ((table (make-syntax-table)))
    (modify-syntax-entry ?# "<" table)
    (modify-syntax-entry ?\n ">" table)
    (modify-syntax-entry ?\" "\"" table)
    (modify-syntax-entry ?_ "w" table)
    (modify-syntax-entry ?@ "'" table)
    table))

(defconst curriculum-font-lock-keywords
  `((,(concat "^[ \t]*" (regexp-opt '("use" "param" "let" "assert" "model" "source" "mix" "stage"
                                      "soup" "budget" "lints" "checkpoint" "eval" "gate") 'words))
     . font-lock-keyword-face)
    (,(regexp-opt '("then" "of" "and" "or" "not" "where" "in" "as") 'words) . font-lock-keyword-face)
    (,(regexp-opt '("inherit" "peak" "rest" "yes" "no") 'words) . font-lock-constant-face)
    ("@\\w+" . font-lock-preprocessor-face)
    ("^[ \t]*\\([A-Za-z_][A-Za-z0-9_.]*\\)[ \t]*=[^=]" 1 font-lock-variable-name-face)
    ("\\_<\\([a-z_0-9]+\\)(" 1 font-lock-function-name-face)))

;;;###autoload
(define-derived-mode curriculum-mode prog-mode "Curriculum"
  "Major mode for training curricula."
  (setq-local comment-start "# "
              comment-start-skip "#+[ \t]*"
              indent-tabs-mode nil
              tab-width 2
              font-lock-defaults '(curriculum-font-lock-keywords)
              indent-line-function #'curriculum-indent-line))

(defun curriculum-indent-line ()
  "Indent the line by the brackets that are open before it."
  (interactive)
  (let* ((depth (save-excursion (beginning-of-line) (car (syntax-ppss))))
         (closes (save-excursion (back-to-indentation) (looking-at-p "[])}]")))
         (column (* 2 (max 0 (if closes (1- depth) depth))))
         (offset (- (current-column) (current-indentation))))
    (indent-line-to column)
    (when (> offset 0) (move-to-column (+ column offset)))))

;;;###autoload
(add-to-list 'auto-mode-alist '("\\.curriculum\\'" . curriculum-mode))

(defvar eglot-server-programs)
(with-eval-after-load 'eglot
  (add-to-list 'eglot-server-programs
               '(curriculum-mode . (lambda (&rest _) curriculum-midc-command))))

(provide 'curriculum-mode)
;;; curriculum-mode.el ends here
