package main

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
)

// configKey is one key of Config with its three names.
type configKey struct {
	path  string // node.cpu_milli
	help  string
	value reflect.Value
}

func (k configKey) flag() string {
	return strings.NewReplacer(".", "-", "_", "-").Replace(k.path)
}

func (k configKey) env() string {
	return "BERTH_" + strings.ToUpper(strings.ReplaceAll(k.path, ".", "_"))
}

func (k configKey) set(text string) error {
	if k.value.Kind() == reflect.String {
		k.value.SetString(text)
		return nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return fmt.Errorf("%q is not a whole number", text)
	}
	k.value.SetInt(n)
	return nil
}

// configKeys lists every key of c, in the order of the struct.
func configKeys(c *Config) []configKey { return keysOf(reflect.ValueOf(c).Elem(), "") }

func keysOf(v reflect.Value, prefix string) []configKey {
	var keys []configKey
	for i := range v.NumField() {
		f := v.Type().Field(i)
		path := prefix + f.Tag.Get("toml")
		if f.Type.Kind() == reflect.Struct {
			keys = append(keys, keysOf(v.Field(i), path+".")...)
			continue
		}
		keys = append(keys, configKey{path: path, help: f.Tag.Get("help"), value: v.Field(i)})
	}
	return keys
}
