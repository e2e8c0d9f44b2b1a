// Lists tar streams as Go's archive/tar reads them: each comes behind its length in four bytes, and so does the answer.
package main

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
)

func clean(n string) string { return strings.TrimPrefix(path.Clean("/"+n), "/") }

func list(b []byte) (s string) {
	r := tar.NewReader(bytes.NewReader(b))
	for {
		h, err := r.Next()
		if err == io.EOF {
			return
		}
		if err != nil {
			return "error " + err.Error()
		}
		kind := map[byte]string{'0': "file", '7': "file", 'S': "file", '5': "directory", '2': "symlink", '1': "link", '6': "fifo", '3': "device", '4': "device", 'g': "global"}[h.Typeflag]
		if kind == "global" {
			continue
		}
		c, err := io.ReadAll(r)
		if err != nil {
			return "error " + err.Error()
		}
		link := ""
		if kind == "symlink" || kind == "link" {
			link = h.Linkname
		}
		s += fmt.Sprintf("%s %s %s %o (%d, %d) %d %s\n", hex.EncodeToString([]byte(clean(h.Name))), kind, hex.EncodeToString([]byte(link)), h.Mode&07777, h.Uid, h.Gid, h.ModTime.Unix(), hex.EncodeToString(c))
	}
}

func main() {
	for {
		var l [4]byte
		if _, err := io.ReadFull(os.Stdin, l[:]); err != nil {
			return
		}
		b := make([]byte, binary.BigEndian.Uint32(l[:]))
		io.ReadFull(os.Stdin, b)
		s := list(b)
		binary.BigEndian.PutUint32(l[:], uint32(len(s)))
		os.Stdout.Write(l[:])
		os.Stdout.WriteString(s)
	}
}
