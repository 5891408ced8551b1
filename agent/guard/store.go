package guard

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// store keeps entries in files, one for each run: the entry as JSON on a line
// and its CRC-32 on the next. Calls must not overlap.
type store struct {
	dir     string // of the entries
	damaged string // where files go that can't be read
}

const suffix = ".json"

// openStore makes the directories, for root alone.
func openStore(dir string) (*store, error) {
	s := &store{dir: filepath.Join(dir, "runs"), damaged: filepath.Join(dir, "damaged")}
	for _, d := range []string{s.dir, s.damaged} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// load reads all entries of this boot. Those of another are removed; files that
// can't be read are put aside, and said in problems.
func (s *store) load(bootID string) (entries []Entry, problems []error, err error) {
	files, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, nil, err
	}
	for _, f := range files {
		path := filepath.Join(s.dir, f.Name())
		run, ok := strings.CutSuffix(f.Name(), suffix)
		if !ok { // a write that didn't come to its end, and was never acknowledged
			problems = appendError(problems, os.RemoveAll(path))
			continue
		}
		e, err := readEntry(path, run)
		switch {
		case err != nil:
			problems = append(problems, fmt.Errorf("%s is damaged and was put aside in %s: %w", path, s.damaged, err))
			problems = appendError(problems, os.Rename(path, filepath.Join(s.damaged, f.Name())))
		case e.BootID != bootID:
			problems = appendError(problems, os.Remove(path))
		default:
			entries = append(entries, e)
		}
	}
	return entries, problems, nil
}

func appendError(all []error, err error) []error {
	if err == nil {
		return all
	}
	return append(all, err)
}

func readEntry(path, run string) (e Entry, err error) {
	file, err := os.Open(path) // #nosec G304 -- a name found in our own directory
	if err != nil {
		return e, err
	}
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(file, 8*maxLine))
	if err != nil {
		return e, err
	}
	text, sum, _ := bytes.Cut(content, []byte("\n"))
	if string(sum) != checksum(text) {
		return e, errors.New("its checksum isn't that of its content")
	}
	if err := json.Unmarshal(text, &e); err != nil {
		return e, err
	}
	if e.Run != run {
		return e, fmt.Errorf("it is of run %.200q", e.Run)
	}
	return e, e.check()
}

func checksum(text []byte) string { return fmt.Sprintf("%08x\n", crc32.ChecksumIEEE(text)) }

// write replaces an entry's file, whole or not at all. It is on the disk when
// the error is nil.
func (s *store) write(e *Entry) error {
	text, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("encode run %s: %w", e.Run, err)
	}
	path := s.path(e.Run)
	file, err := os.OpenFile(path+".new", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = file.WriteString(string(text) + "\n" + checksum(text))
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return errors.Join(err, os.Remove(path+".new"))
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	return s.sync()
}

// remove forgets a run; one that isn't there is no error.
func (s *store) remove(run string) error {
	if err := os.Remove(s.path(run)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return s.sync()
}

func (s *store) path(run string) string { return filepath.Join(s.dir, run+suffix) }

func (s *store) sync() error {
	dir, err := os.Open(s.dir)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// aside is how many damaged files there are.
func (s *store) aside() int {
	files, _ := os.ReadDir(s.damaged)
	return len(files)
}
