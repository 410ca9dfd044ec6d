// Package mutants builds the product with a fault: a patch of which a checker must find
// what it does. The patches of this directory are those of jepsen/strong.
package mutants

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Overlay applies a patch to copies of the files that it names, and writes what go build
// needs to take them instead: the source of the product is not touched.
func Overlay(ctx context.Context, patch, dir string) (file string, err error) {
	text, err := os.ReadFile(patch)
	if err != nil {
		return "", err
	}
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/meshkv/meshkv").Output()
	if err != nil {
		return "", fmt.Errorf("find the module: %w", err)
	}
	root, copies := strings.TrimSpace(string(out)), filepath.Join(dir, "mutant")
	replace := make(map[string]string)
	for line := range strings.Lines(string(text)) {
		name, ok := strings.CutPrefix(strings.TrimSpace(line), "+++ b/")
		if !ok {
			continue
		}
		source, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			return "", err
		}
		to := filepath.Join(copies, name)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return "", err
		}
		if err := os.WriteFile(to, source, 0o644); err != nil {
			return "", err
		}
		replace[filepath.Join(root, name)] = to
	}
	if len(replace) == 0 {
		return "", fmt.Errorf("%s changes no file", patch)
	}
	absolute, err := filepath.Abs(patch)
	if err != nil {
		return "", err
	}
	apply := exec.CommandContext(ctx, "git", "apply", absolute)
	apply.Dir = copies
	apply.Env = append(os.Environ(), "GIT_CEILING_DIRECTORIES="+dir) // whatever repository dir is in
	if text, err := apply.CombinedOutput(); err != nil {
		return "", fmt.Errorf("apply %s: %w\n%s", patch, err, text)
	}
	document, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	file = filepath.Join(dir, "overlay.json")
	return file, os.WriteFile(file, document, 0o644)
}
