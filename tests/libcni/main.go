// A container runtime of a few lines over libcni, the library of containerd, CRI-O and podman: the plugin's second,
// independent caller. Usage: libcni CNI_PATH CACHE CONFLIST NETNS IFNAME
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
)

func say(what string, value interface{}) {
	text, err := json.Marshal(map[string]interface{}{what: value})
	if err != nil {
		fail(what, err)
	}
	fmt.Println(string(text))
}

// An error of a plugin with its code and details; any other one as text.
func fail(step string, err error) {
	told := map[string]interface{}{"step": step, "text": err.Error()}
	var cni *types.Error
	if errors.As(err, &cni) {
		told["code"], told["msg"], told["details"] = cni.Code, cni.Msg, cni.Details
	}
	say("error", told)
	os.Exit(1)
}

func main() {
	list, err := libcni.ConfListFromFile(os.Args[3])
	if err != nil {
		fail("read", err)
	}
	cni := libcni.NewCNIConfigWithCacheDir(filepath.SplitList(os.Args[1]), os.Args[2], nil)
	runtime := &libcni.RuntimeConf{
		ContainerID: "libcni-box", NetNS: os.Args[4], IfName: os.Args[5],
		Args:           [][2]string{{"IgnoreUnknown", "1"}, {"K8S_POD_NAME", "pod"}},
		CapabilityArgs: map[string]interface{}{"mac": "02:00:00:00:00:2a", "ips": []string{"10.7.0.9/24"}},
	}
	ctx := context.Background()
	if _, err = cni.ValidateNetworkList(ctx, list); err != nil {
		fail("validate", err)
	}
	result, err := cni.AddNetworkList(ctx, list, runtime)
	if err != nil {
		fail("add", err)
	}
	say("result", result)
	if !list.DisableCheck && list.CNIVersion >= "0.4.0" {
		if err = cni.CheckNetworkList(ctx, list, runtime); err != nil {
			fail("check", err)
		}
	}
	say("attached", true)
	// The test looks around until it closes our input.
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
	for _, step := range []string{"del", "del again"} {
		if err = cni.DelNetworkList(ctx, list, runtime); err != nil {
			fail(step, err)
		}
	}
	say("detached", true)
}
