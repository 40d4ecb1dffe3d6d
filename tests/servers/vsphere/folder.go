package main

import (
	"io"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// admitted tells whether a request may have data: the simulator itself asks nobody for a login.
func (v *vcenter) admitted(r *http.Request) bool {
	if v.tickets {
		cookie, err := r.Cookie("vmware_cgi_ticket")
		if err != nil {
			return false
		}
		methods := map[string]string{"GET": "httpGet", "HEAD": "httpHead", "PUT": "httpPut"}
		id := strings.Trim(cookie.Value, `"`)
		v.mu.Lock()
		defer v.mu.Unlock()
		wanted := v.issued[id]
		delete(v.issued, id) // it is good for once
		return wanted == methods[r.Method]+" "+r.URL.RequestURI()
	}
	cookie, err := r.Cookie("vmware_soap_session")
	if err != nil {
		return false
	}
	for _, key := range sessions() {
		if key == strings.Trim(cookie.Value, `"`) {
			return true
		}
	}
	return false
}

// folder serves the files.  A PUT is ours, as the simulator's hides errors: 201 for a new file, 507
// when it does not fit, and what was written of a file that failed stays, as on a real datastore.
func (v *vcenter) folder(w http.ResponseWriter, r *http.Request) {
	if !v.admitted(r) {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	if r.Method != http.MethodPut {
		v.service.ServeDatastore(w, r)
		return
	}
	query := r.URL.Query()
	for _, each := range v.datastores {
		same := strings.Trim(each.Datacenter, "/") == strings.Trim(query.Get("dcPath"), "/")
		if same && each.Name == query.Get("dsName") {
			v.put(w, r, each)
			return
		}
	}
	w.WriteHeader(http.StatusNotFound)
}

func (v *vcenter) put(w http.ResponseWriter, r *http.Request, d *datastore) {
	name := path.Clean("/" + strings.TrimPrefix(r.URL.Path, "/folder"))
	target := filepath.Join(d.Directory, name)
	status := http.StatusCreated
	room := v.free(d)
	if info, err := os.Stat(target); err == nil {
		status = http.StatusOK
		room += info.Size()
	}
	fail := func(code int) {
		w.Header().Set("Connection", "close")
		w.WriteHeader(code)
	}
	if r.ContentLength > room {
		fail(http.StatusInsufficientStorage)
		return
	}
	file, err := os.Create(target)
	if err != nil {
		fail(http.StatusNotFound) // there is no such directory
		return
	}
	defer file.Close()
	written, err := io.Copy(file, io.LimitReader(r.Body, room+1))
	if written > room {
		fail(http.StatusInsufficientStorage)
	} else if err != nil {
		fail(http.StatusInternalServerError)
	} else {
		w.WriteHeader(status)
	}
}
