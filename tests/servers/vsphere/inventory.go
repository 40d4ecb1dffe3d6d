package main

import (
	"context"
	"os"
	"strings"

	"github.com/vmware/govmomi/find"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/types"
)

// build makes the folders, the datacenters with a host each, and the datastores.
func (v *vcenter) build(client *vim25.Client) error {
	ctx := context.Background()
	hosts := map[string]*object.HostSystem{}
	for _, each := range v.datastores {
		host := hosts[each.Datacenter]
		if host == nil {
			made, err := makeDatacenter(ctx, client, each.Datacenter)
			if err != nil {
				return err
			}
			host, hosts[each.Datacenter] = made, made
		}
		if err := os.MkdirAll(each.Directory, 0700); err != nil {
			return err
		}
		system, err := host.ConfigManager().DatastoreSystem(ctx)
		if err != nil {
			return err
		}
		made, err := system.CreateLocalDatastore(ctx, each.Name, each.Directory)
		if err != nil {
			return err
		}
		each.object = simulator.Map.Get(made.Reference()).(*simulator.Datastore)
	}
	return nil
}

func makeDatacenter(
	ctx context.Context, client *vim25.Client, path string,
) (*object.HostSystem, error) {
	names := strings.Split(strings.Trim(path, "/"), "/")
	finder := find.NewFinder(client, false)
	folder := object.NewRootFolder(client)
	for number := range names[:len(names)-1] {
		found, err := finder.Folder(ctx, "/"+strings.Join(names[:number+1], "/"))
		if err != nil {
			found, err = folder.CreateFolder(ctx, names[number])
		}
		if err != nil {
			return nil, err
		}
		folder = found
	}
	datacenter, err := folder.CreateDatacenter(ctx, names[len(names)-1])
	if err != nil {
		return nil, err
	}
	folders, err := datacenter.Folders(ctx)
	if err != nil {
		return nil, err
	}
	spec := types.HostConnectSpec{HostName: strings.Join(names, "-") + "-host"}
	task, err := folders.HostFolder.AddStandaloneHost(ctx, spec, true, nil, nil)
	if err != nil {
		return nil, err
	}
	info, err := task.WaitForResult(ctx, nil)
	if err != nil {
		return nil, err
	}
	reference := info.Result.(types.ManagedObjectReference)
	if reference.Type != "HostSystem" {
		hosts, err := object.NewComputeResource(client, reference).Hosts(ctx)
		if err != nil {
			return nil, err
		}
		return hosts[0], nil
	}
	return object.NewHostSystem(client, reference), nil
}
