package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strconv"
	"strings"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// plan is what a test wants to go wrong: the next time that operation comes, action is done.
//
//	drop          close the connection, and do nothing
//	drop-reply    do it, and close the connection without an answer
//	stall         do nothing, until the client goes away
//	logout        end all sessions first
//	status NUMBER answer with this HTTP status, and do nothing
//	cut BYTES     close the connection after so many bytes of the answer's body
//	truncate BYTES store so much of the request's body, and call it a success
//	task FAULT    a task that ends with this fault
//	task running  a task that does not end
type plan struct {
	operation string
	action    string
	argument  string
}

// request is one line of the record.
type request struct {
	Operation string `json:"operation"`
	Target    string `json:"target"`
	Host      string `json:"host"`
	Cookie    string `json:"cookie"` // the names of cookies
	Agent     string `json:"agent"`
	Length    int64  `json:"length"` // of the body, -1 when it is chunked
}

// planned takes the next plan for an operation; tasks' plans are taken by the task alone.
func (v *vcenter) planned(operation string, task bool) *plan {
	v.mu.Lock()
	defer v.mu.Unlock()
	for number, each := range v.plans {
		if each.operation == operation && (each.action == "task") == task {
			v.plans = append(v.plans[:number:number], v.plans[number+1:]...)
			return each
		}
	}
	return nil
}

// cutWriter ends the connection after some bytes.
type cutWriter struct {
	http.ResponseWriter
	left int64
}

func (w *cutWriter) Write(data []byte) (int, error) {
	if int64(len(data)) > w.left {
		_, _ = w.ResponseWriter.Write(data[:w.left])
		w.ResponseWriter.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	w.left -= int64(len(data))
	return w.ResponseWriter.Write(data)
}

// ReadFrom is there so that nothing goes past Write.
func (w *cutWriter) ReadFrom(source io.Reader) (int64, error) {
	return io.Copy(struct{ io.Writer }{w}, source)
}

// serve records a request, and answers it by handle unless there is another plan.
func (v *vcenter) serve(
	operation string, w http.ResponseWriter, r *http.Request, handle func(http.ResponseWriter),
) {
	names := []string{}
	for _, each := range r.Cookies() {
		names = append(names, each.Name)
	}
	v.mu.Lock()
	v.requests = append(v.requests, request{
		operation, r.URL.RequestURI(), r.Host, strings.Join(names, " "), r.UserAgent(), r.ContentLength,
	})
	v.mu.Unlock()
	plan := v.planned(operation, false)
	if plan == nil {
		handle(w)
		return
	}
	number, _ := strconv.ParseInt(plan.argument, 10, 64)
	switch plan.action {
	case "drop":
		panic(http.ErrAbortHandler)
	case "drop-reply":
		handle(httptest.NewRecorder())
		panic(http.ErrAbortHandler)
	case "stall":
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	case "logout":
		endSessions()
		handle(w)
	case "status":
		w.WriteHeader(int(number))
	case "cut":
		handle(&cutWriter{w, number})
	case "truncate":
		whole := r.Body
		r.Body, r.ContentLength = io.NopCloser(io.LimitReader(whole, number)), number
		handle(httptest.NewRecorder())
		_, _ = io.Copy(io.Discard, whole)
		w.WriteHeader(http.StatusCreated)
	default:
		http.Error(w, "no such action: "+plan.action, http.StatusTeapot)
	}
}

// fileManager is the simulator's, whose tasks fail as planned.
type fileManager struct {
	simulator.FileManager
	vcenter *vcenter
}

func (f *fileManager) failing(operation string) (types.ManagedObjectReference, bool) {
	plan := f.vcenter.planned(operation, true)
	if plan == nil {
		return types.ManagedObjectReference{}, false
	}
	task := simulator.CreateTask(f, operation, func(*simulator.Task) (types.AnyType, types.BaseMethodFault) {
		kind, _ := types.TypeFunc()(plan.argument)
		return nil, reflect.New(kind).Interface().(types.BaseMethodFault)
	})
	if plan.argument == "running" {
		return task.Self, true
	}
	return task.Run(), true
}

// MoveDatastoreFileTask is called by name, as is the other one.
func (f *fileManager) MoveDatastoreFileTask(req *types.MoveDatastoreFile_Task) soap.HasFault {
	if task, planned := f.failing("MoveDatastoreFile_Task"); planned {
		return &methods.MoveDatastoreFile_TaskBody{
			Res: &types.MoveDatastoreFile_TaskResponse{Returnval: task},
		}
	}
	return f.FileManager.MoveDatastoreFileTask(req)
}

// DeleteDatastoreFileTask deletes a file.
func (f *fileManager) DeleteDatastoreFileTask(req *types.DeleteDatastoreFile_Task) soap.HasFault {
	if task, planned := f.failing("DeleteDatastoreFile_Task"); planned {
		return &methods.DeleteDatastoreFile_TaskBody{
			Res: &types.DeleteDatastoreFile_TaskResponse{Returnval: task},
		}
	}
	return f.FileManager.DeleteDatastoreFileTask(req)
}

// controls serves the tests' own requests.
func (v *vcenter) controls() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/plan", func(w http.ResponseWriter, r *http.Request) {
		action, argument, _ := strings.Cut(r.FormValue("action"), " ")
		v.mu.Lock()
		defer v.mu.Unlock()
		v.plans = append(v.plans, &plan{r.FormValue("operation"), action, argument})
	})
	mux.HandleFunc("/reset", func(http.ResponseWriter, *http.Request) {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.plans, v.requests = nil, nil
	})
	mux.HandleFunc("/free", func(w http.ResponseWriter, r *http.Request) {
		v.mu.Lock()
		defer v.mu.Unlock()
		for _, each := range v.datastores {
			if each.key() == r.FormValue("datastore") {
				each.Free, _ = strconv.ParseInt(r.FormValue("bytes"), 10, 64)
				return
			}
		}
		w.WriteHeader(http.StatusNotFound)
	})
	mux.HandleFunc("/logout", func(http.ResponseWriter, *http.Request) { endSessions() })
	mux.HandleFunc("/sessions", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, len(sessions()))
	})
	mux.HandleFunc("/requests", func(w http.ResponseWriter, _ *http.Request) {
		v.mu.Lock()
		defer v.mu.Unlock()
		_ = json.NewEncoder(w).Encode(v.requests)
	})
	return mux
}
