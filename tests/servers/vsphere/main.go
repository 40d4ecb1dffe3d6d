// A vCenter for tests: govmomi's simulator, with the inventory, the free space and the data server
// that a datastore's client needs.  SOAP calls are the simulator's own; what /folder does is in
// folder.go, and how tests make things go wrong is in control.go.
package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"flag"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/types"
)

// datastore is one line of the configuration, and what became of it.
type datastore struct {
	Datacenter string `json:"datacenter"` // inventory path, such as /DC0 or /folder/DC1
	Name       string `json:"name"`
	Directory  string `json:"directory"` // where its files really lie
	Free       int64  `json:"free"`      // bytes free while it is empty

	object *simulator.Datastore
}

func (d *datastore) key() string { return d.Datacenter + ":" + d.Name }

// vcenter is the whole server.
type vcenter struct {
	service    *simulator.Service
	datastores []*datastore
	tickets    bool // /folder takes service tickets and no session

	mu       sync.Mutex // guards what follows
	issued   map[string]string
	plans    []*plan
	requests []request
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// refresh tells the simulator how much room there is: by itself it would say what statfs says.
func (v *vcenter) refresh() {
	for _, each := range v.datastores {
		free := v.free(each)
		simulator.Map.WithLock(each.object, func() {
			each.object.Summary.Capacity = each.Free
			each.object.Summary.FreeSpace = free
		})
	}
}

func (v *vcenter) free(d *datastore) int64 {
	v.mu.Lock()
	free := d.Free
	v.mu.Unlock()
	_ = filepath.Walk(d.Directory, func(_ string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().IsRegular() {
			free -= info.Size()
		}
		return nil
	})
	if free < 0 {
		return 0
	}
	return free
}

func content() types.ServiceContent {
	return simulator.Map.Get(vim25.ServiceInstance).(*simulator.ServiceInstance).Content
}

// sessions returns the keys of all live sessions.
func sessions() []string {
	view := &simulator.Session{Registry: simulator.NewRegistry()}
	var keys []string
	manager := view.Get(*content().SessionManager).(*simulator.SessionManager)
	for _, each := range manager.SessionList {
		keys = append(keys, each.Key)
	}
	return keys
}

// endSessions logs everybody out.
func endSessions() {
	nobody := &simulator.Context{Session: &simulator.Session{Registry: simulator.NewRegistry()}}
	request := &types.TerminateSession{SessionId: sessions()}
	simulator.Map.SessionManager().TerminateSession(nobody, request)
}

var (
	operation = regexp.MustCompile(`<(?:[\w.-]+:)?Body[^>]*>\s*<(?:[\w.-]+:)?(\w+)`)
	ticketFor = regexp.MustCompile(`(?s)<(?:\w+:)?method[^>]*>(\w+)<.*<(?:\w+:)?url[^>]*>([^<]+)<`)
	ticketID  = regexp.MustCompile(`<(?:\w+:)?id[^>]*>([^<]+)<`)
)

// sdk serves the SOAP calls.
func (v *vcenter) sdk(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	name := "?"
	if found := operation.FindSubmatch(body); found != nil {
		name = string(found[1])
	}
	v.serve(name, w, r, func(w http.ResponseWriter) {
		r.Body = io.NopCloser(bytes.NewReader(body))
		v.refresh()
		w.Header().Set("Content-Type", "text/xml; charset=utf-8")
		if name != "AcquireGenericServiceTicket" {
			v.service.ServeSDK(w, r)
			return
		}
		reply := httptest.NewRecorder()
		v.service.ServeSDK(reply, r)
		wanted := ticketFor.FindSubmatch(body)
		given := ticketID.FindSubmatch(reply.Body.Bytes())
		if wanted != nil && given != nil {
			target, err := url.Parse(strings.ReplaceAll(string(wanted[2]), "&amp;", "&"))
			check(err)
			v.mu.Lock()
			v.issued[string(given[1])] = string(wanted[1]) + " " + target.RequestURI()
			v.mu.Unlock()
		}
		w.WriteHeader(reply.Code)
		_, _ = w.Write(reply.Body.Bytes())
	})
}

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "address of the API and the data server")
	control := flag.String("control", "127.0.0.1:0", "address of the tests' own requests")
	certificate := flag.String("certificate", "", "PEM with certificate and key")
	wsdl := flag.String("wsdl", "", "directory that is served below /sdk/")
	inventory := flag.String("inventory", "", "JSON list of datastores")
	tickets := flag.Bool("tickets", false, "/folder takes service tickets and no session")
	flag.Parse()

	model := simulator.VPX()
	model.Datacenter, model.Host, model.Cluster, model.Portgroup, model.Machine = 0, 0, 0, 0, 0
	check(model.Create())
	v := &vcenter{service: model.Service, tickets: *tickets, issued: map[string]string{}}
	text, err := os.ReadFile(*inventory)
	check(err)
	check(json.Unmarshal(text, &v.datastores))
	client, err := vim25.NewClient(context.Background(), model.Service)
	check(err)
	check(v.build(client))
	simulator.Map.Put(&fileManager{FileManager: *simulator.Map.FileManager(), vcenter: v})
	v.refresh()

	login := url.UserPassword(os.Getenv("VSPHERE_USER"), os.Getenv("VSPHERE_PASSWORD"))
	model.Service.Listen = &url.URL{Scheme: "https", Host: *listen, Path: vim25.Path, User: login}
	model.Service.RegisterSDK(simulator.Map)
	mux := http.NewServeMux()
	mux.HandleFunc(vim25.Path, v.sdk)
	files := http.StripPrefix(vim25.Path, http.FileServer(http.Dir(*wsdl)))
	mux.HandleFunc(vim25.Path+"/", func(w http.ResponseWriter, r *http.Request) {
		v.serve("WSDL", w, r, func(w http.ResponseWriter) { files.ServeHTTP(w, r) })
	})
	mux.HandleFunc("/folder/", func(w http.ResponseWriter, r *http.Request) {
		v.serve(r.Method, w, r, func(w http.ResponseWriter) { v.folder(w, r) })
	})
	pair, err := tls.LoadX509KeyPair(*certificate, *certificate)
	check(err)
	settings := &tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: []string{"http/1.1"}}
	plain, err := net.Listen("tcp", *listen)
	check(err)
	side, err := net.Listen("tcp", *control)
	check(err)
	go func() { check(http.Serve(side, v.controls())) }()
	check((&http.Server{Handler: mux}).Serve(tls.NewListener(plain, settings)))
}
